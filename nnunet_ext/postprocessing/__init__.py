"""Post-processing of label maps: operations, their choice on a cross-validation, and the JSON file that holds it."""
