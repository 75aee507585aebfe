"""Training ResNet, RK-Net and ODE-Net on images, and what a trained one answers."""
