"""What a run leaves behind: its folder, checkpoints, manifests, epochs, and the disk that they take."""
