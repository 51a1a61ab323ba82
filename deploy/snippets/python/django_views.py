"""Django views: a ticket for the logged-in user, a publish, and a logout that ends all streams."""

from django.contrib.auth import logout
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

import downlink


@require_GET
@never_cache
def live(request):
    """The page fetches this URL, and opens the URL in the answer with EventSource."""
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Log in first."}, status=401)
    user = str(request.user.pk)
    # Build topics from ids, never from names that users choose: a user named "*" would get a
    # ticket for the topics of all users.
    return JsonResponse({"url": downlink.ticket([f"users/{user}/*"], client=user)})


@require_POST
def pay(request, order):
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Log in first."}, status=401)
    downlink.publish(f"users/{request.user.pk}/orders", "paid", {"order": order})
    return JsonResponse({"order": order})


@require_POST
def leave(request):
    user = str(request.user.pk)
    logout(request)
    downlink.revoke(user)
    return JsonResponse({})
