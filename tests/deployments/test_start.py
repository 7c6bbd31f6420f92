"""Before a run is started, its user is told what it would wait for."""

import asyncio

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate

from deployments.start import nobody_works
from flows.refresh_corpus import refresh_corpus


def test_a_run_that_nobody_would_take_is_told(prefect_server: None) -> None:
    async def hints() -> list[str | None]:
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="idle", type="process"))
            await client.create_deployment(
                flow_id=await client.create_flow(refresh_corpus), name="idle", work_pool_name="idle"
            )
            found = [await nobody_works("refresh-corpus/idle")]
            await client.send_worker_heartbeat("idle", "a worker", heartbeat_interval_seconds=30)
            found.append(await nobody_works("refresh-corpus/idle"))
            await client.update_work_pool("idle", WorkPoolUpdate(is_paused=True))
            return [*found, await nobody_works("refresh-corpus/idle")]

    alone, served, paused = asyncio.run(hints())
    assert alone is not None
    assert alone.endswith("waits until `prefect worker start --pool idle`.")
    assert served is None
    assert paused is not None
    assert "paused" in paused
