"""What every experiment needs, whatever it is about; imports no framework and no other room."""
