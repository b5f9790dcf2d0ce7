"""Masters of darks, flats and bias, in bands of rows, of the frames that are sound."""
