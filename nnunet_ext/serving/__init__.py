"""A model kept loaded behind a small HTTP interface.

Two processes: the one that speaks HTTP (`app`, `upload`) stores an upload in a folder of its own and never reads an
image; the worker (`worker`, `case_predictor`) holds the networks and sees one request's folder at a time. The first
replaces the second when it ends or takes too long (`worker_process`).
"""
