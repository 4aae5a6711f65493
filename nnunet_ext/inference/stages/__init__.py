"""The stages after the last member, one per file: decide, describe, calibrate, embed.

`decide` turns the sums over the members into a `CaseResult`, the stages in between take and return it, and `embed`
turns it into what is written.
"""
