"""`python -m nnunet_ext` is the command `nnunet_ext`."""

from nnunet_ext.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
