"""A Django project in one file, around the views in deploy/snippets/python."""

import os
import sys
from pathlib import Path
from wsgiref.simple_server import WSGIServer, make_server
from socketserver import ThreadingMixIn

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/snippets/python"))

import django
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "app.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    # The default hasher takes a tenth of a second for each password on purpose.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="a secret of this test",
)
django.setup()

import django_views as views
from django.contrib.auth.models import User


def page(request):
    return HttpResponse(f'<meta name="csrf-token" content="{get_token(request)}">')


def enter(request):
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return JsonResponse({}, status=401)
    login(request, user)
    return JsonResponse({})


urlpatterns = [
    path("", page),
    path("login", enter),
    path("live", views.live),
    path("orders/<int:order>/pay", views.pay),
    path("logout", views.leave),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    for name in ("ada", "bob"):
        User.objects.create_user(name, password=f"password of {name}")
    make_server("127.0.0.1", int(os.environ["PORT"]), get_wsgi_application(), Server).serve_forever()
