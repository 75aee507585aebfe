"""The study of the paper's section 3: its runs, and the tables and pictures made of them."""
