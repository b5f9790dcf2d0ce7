"""What is to be known of a calibrated sub: background, noise, blocks, stars, their shapes."""
