"""The client, sync and async, against the running service."""

from pathlib import Path

import numpy as np
import pytest

from event_files import write_event_file
from lexray import Client
from lexray.client import AsyncClient, ServiceError
from lexray.errors import LexrayError
from service import ServiceProcess
from tiny_release import source

pytestmark = pytest.mark.cluster


def test_what_the_service_says_comes_back_typed(service: ServiceProcess) -> None:
    with Client(service.url) as client:
        release = client.release()
        assert client.health().release == release.release
        vectors = client.embed_text(["a young star", "a galaxy"])
        assert vectors.shape == (2, release.dimension)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
        found = client.search("an eclipsed white dwarf", k=3, modality="text")
        assert len(found) == 3
        assert found[0].score >= found[1].score >= found[2].score
        assert [hit.source_id for hit in client.search(vectors[0], k=2)] == [
            hit.source_id for hit in client.search("a young star", k=2)
        ]


def test_event_lists_and_event_files_are_both_observations(service: ServiceProcess, tmp_path: Path) -> None:
    path = write_event_file(tmp_path / "a.fits")
    with Client(service.url) as client:
        assert client.embed_events(path).n_events == 10
        answer = client.embed_events(source(7), k=2)
        assert answer.source_id == "S7"
        assert answer.nearest[0].source_id == "S7"
        assert client.search(source(7), k=1)[0].source_id == "S7"
        assert client.search(path, k=1)[0].source_id == client.embed_events(path, k=1).nearest[0].source_id


def test_a_refusal_is_an_exception_with_the_problems_text(service: ServiceProcess, tmp_path: Path) -> None:
    path = write_event_file(tmp_path / "a.fits", header={"TELESCOP": "HUBBLE"})
    with Client(service.url) as client:
        with pytest.raises(ServiceError, match="TELESCOP is 'HUBBLE'; known are CHANDRA") as caught:
            client.embed_events(path)
        assert (caught.value.status, caught.value.reason) == (422, "unknown_mission")
        with pytest.raises(ServiceError, match="vectors of this release have 16 numbers, got 3"):
            client.search([1.0, 2.0, 3.0])
        with pytest.raises(LexrayError, match=r"no\.fits: No such file"):
            client.embed_events(tmp_path / "no.fits")


def test_a_service_that_is_not_there_is_named() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match=r"127\.0\.0\.1:9 does not answer"):
        client.health()


async def test_the_async_client_answers_as_the_other(service: ServiceProcess, tmp_path: Path) -> None:
    path = write_event_file(tmp_path / "a.fits")
    with Client(service.url) as client:
        vectors, found, placed = client.embed_text(["a star"]), client.search("a star"), client.embed_events(path)
        release = client.release()
    async with AsyncClient(service.url) as client_async:
        np.testing.assert_allclose(await client_async.embed_text(["a star"]), vectors, atol=1e-5)
        assert [hit.source_id for hit in await client_async.search("a star")] == [hit.source_id for hit in found]
        assert (await client_async.embed_events(path)).detection_id == placed.detection_id
        assert await client_async.release() == release
        with pytest.raises(ServiceError, match="the text is empty"):
            await client_async.search(" ")
