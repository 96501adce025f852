"""``python -m fusion``, for launchers: ``accelerate launch -m fusion train CONFIG``."""

from fusion.cli.main import main

if __name__ == "__main__":
    main()
