"""What does the training loss look like around the weights?"""
