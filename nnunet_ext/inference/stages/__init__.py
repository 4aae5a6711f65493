"""What follows the members, one stage per file: decide, describe, calibrate, embed.

`decide` makes a `CaseResult` of the sums, the stages between read and return it, `embed` makes of it what is written.
"""
