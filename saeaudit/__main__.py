"""``python -m saeaudit``."""

from saeaudit.cli.app import app

if __name__ == "__main__":
    app(prog_name="saeaudit")
