"""Plots as inline SVG, coloured by the page's variables so that they follow its light and dark colours."""
