"""What every room needs: errors, files, torchvision's import."""
