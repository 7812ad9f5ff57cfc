"""A server for real clients to talk to: a bot without a model. Its address is the line it prints.

    python server.py [PORT [FOLDER]]      a free port, and a folder of its own for the database

It knows the questions of tests/serving.py; "fail" makes the engine die in mid-answer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from byheart.errors import ByheartError
from byheart.serve.database import Database
from byheart.serve.server import serve
from serving import Bot, make_app


def main(port: int, folder: Path) -> None:
    database = Database("", folder=folder)
    database.migrate()
    app = make_app(Bot(), database=database)
    serve(app, host="127.0.0.1", port=port, ready=lambda address: print(address, flush=True))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        try:
            main(int(sys.argv[1]) if len(sys.argv) > 1 else 0, Path(sys.argv[2] if len(sys.argv) > 2 else own))
        except ByheartError as fault:
            sys.exit(str(fault))
