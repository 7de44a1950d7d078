"""What happens to images on the training's device: how they get there, and their augmentation."""
