"""A FastAPI app around the routes in deploy/snippets/python."""

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/snippets/python"))

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request
from starlette.middleware.sessions import SessionMiddleware

import fastapi_routes

USERS = {"ada": 1, "bob": 2}

app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key="a secret of this test")
app.include_router(fastapi_routes.router)


@app.get("/")
def page():
    return {}


@app.post("/login")
def enter(request: Request, body: Annotated[bytes, Body()]):
    # FastAPI needs another package for forms.
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    if form["name"] not in USERS or form["password"] != f"password of {form['name']}":
        raise HTTPException(401)
    request.session["user"] = USERS[form["name"]]
    return {}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
