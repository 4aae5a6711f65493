"""Parts that change which cases and patches are trained on."""
