"""`python -m vidflow VERB ...` is the console command `vidflow VERB ...`."""

from vidflow.cli import main

if __name__ == "__main__":
    main()
