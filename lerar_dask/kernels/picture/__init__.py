"""From masters to a picture: color spaces, background, white, stretch, luminance, noise of colors, deconvolution."""
