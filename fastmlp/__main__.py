"""``python -m fastmlp`` is the command ``fastmlp``."""

from fastmlp.cli import main

main()
