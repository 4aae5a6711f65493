"""The generated parts of the reference: functions that return Markdown, made from the tables of the package.

Nothing here imports Sphinx, so that tests call the same functions as the site.
"""
