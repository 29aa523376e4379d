"""Which route a path is for."""

import pytest

from app.routing import Router


def router() -> Router[str]:
    router: Router[str] = Router()
    for method, path in (
        ("GET", "/kv"),
        ("GET", "/kv/{key}"),
        ("PUT", "/kv/{key}"),
        ("GET", "/members"),
        ("DELETE", "/members/{id}"),
    ):
        router.add(method, path, f"{method} {path}")
    return router


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/kv", "/kv"),
        ("/%6Bv", "/kv"),
        ("/kv/", "/kv/{key}"),
        ("/kv/a", "/kv/{key}"),
        ("/%6bv/a", "/kv/{key}"),
        ("/kv/a/b//c/", "/kv/{key}"),
        ("/kv/a%2Fb", "/kv/{key}"),
        ("/members", "/members"),
        ("/members/B", "/members/{id}"),
        ("/members/", None),
        ("/members/B/", None),
        ("/members/B/C", None),
        ("/kv%2Fa", None),
        ("/", None),
        ("", None),
        ("//kv", None),
        ("/KV", None),
        ("/kvs", None),
        ("/kv?x", None),
    ],
)
def test_a_path_is_found_by_what_it_means(path: str, found: str | None) -> None:
    resource = router().find(path)
    assert (resource.path if resource else None) == found


def test_each_method_leads_where_it_was_said_to() -> None:
    resource = router().find("/kv/a")
    assert resource is not None
    assert resource.methods == {"GET": "GET /kv/{key}", "PUT": "PUT /kv/{key}"}


def test_all_paths_are_known() -> None:
    paths = [resource.path for resource in router().paths()]
    assert sorted(paths) == ["/kv", "/kv/{key}", "/members", "/members/{id}"]


@pytest.mark.parametrize("path", ["/a/b", "/a/{b}/c", "/{a}/b"])
def test_a_path_of_another_kind_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no kind that is known"):
        router().add("GET", path, "x")
