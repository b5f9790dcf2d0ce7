"""Order and middle of many values, and the constants that make them comparable with a normal distribution's."""
