"""FastAPI routes: a ticket for the logged-in user, a publish, and a logout that ends all streams.

The app needs Starlette's `SessionMiddleware`. The login stores the user's id in the session. FastAPI
runs these functions in threads, because they are not `async`. So waiting for the server is allowed.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response

import downlink

router = APIRouter()


def user_of(request: Request) -> str:
    user = request.session.get("user")
    if user is None:
        raise HTTPException(401, "Log in first.")
    return str(user)


User = Annotated[str, Depends(user_of)]


@router.get("/live")
def live(user: User, response: Response):
    """The page fetches this URL, and opens the URL in the answer with EventSource."""
    response.headers["Cache-Control"] = "no-store"
    # Build topics from ids, never from names that users choose: a user named "*" would get a
    # ticket for the topics of all users.
    return {"url": downlink.ticket([f"users/{user}/*"], client=user)}


@router.post("/orders/{order}/pay")
def pay(order: int, user: User):
    downlink.publish(f"users/{user}/orders", "paid", {"order": order})
    return {"order": order}


@router.post("/logout")
def leave(user: User, request: Request):
    request.session.clear()
    downlink.revoke(user)
    return {}
