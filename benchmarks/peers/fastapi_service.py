"""A job service as one writes it by hand: FastAPI, SQLAlchemy (async) and PostgreSQL."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey, Index, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# On a busy machine calls wait for a connection longer than the 30 s after which SQLAlchemy fails.
engine = create_async_engine(
    os.environ["PEERS_POSTGRES"], pool_size=16, max_overflow=0, pool_timeout=300
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB}  # noqa: RUF012


class Job(Base):
    __tablename__ = "jobs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    status: Mapped[str] = mapped_column(default="queued")
    parameters: Mapped[dict[str, Any]]
    progress: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(default="")
    result: Mapped[dict[str, Any] | None]
    create_time: Mapped[datetime] = mapped_column(server_default=func.now())
    update_time: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (Index("ix_queued", "create_time", postgresql_where=status == "queued"),)


class Asset(Base):
    __tablename__ = "assets"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    type: Mapped[str]
    url: Mapped[str]
    size: Mapped[int]


class Message(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewJob(Message):
    parameters: dict[str, Any]


class Progress(Message):
    progress: int = Field(ge=0, le=100)
    message: str = ""


class NewAsset(Message):
    type: str
    url: str
    size: int


class Result(Message):
    result: dict[str, Any]


class JobState(NewJob, Progress):
    id: uuid.UUID
    status: str
    result: dict[str, Any] | None
    create_time: datetime
    update_time: datetime


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


app = FastAPI(lifespan=lifespan)
Session = Annotated[AsyncSession, Depends(open_session)]


@app.post("/jobs", status_code=201)
async def create(new: NewJob, session: Session) -> JobState:
    job = Job(parameters=new.parameters)
    session.add(job)
    await session.commit()
    return JobState.model_validate(job)


@app.get("/jobs/{job_id}")
async def read(job_id: uuid.UUID, session: Session) -> JobState:
    job = await session.get(Job, job_id)
    if job is None:
        raise HTTPException(404)
    return JobState.model_validate(job)


@app.post("/claims")
async def claim(limit: int, session: Session) -> list[JobState]:
    queued = select(Job.id).where(Job.status == "queued").order_by(Job.create_time).limit(limit)
    # A CTE runs once. A subquery may run again for each row, and lock other jobs each time: after
    # an ANALYZE of a nearly empty table PostgreSQL plans it so.
    chosen = queued.with_for_update(skip_locked=True).cte("chosen")
    started = update(Job).where(Job.id == chosen.c.id).values(status="running").returning(Job)
    jobs = (await session.scalars(started)).all()
    await session.commit()
    return [JobState.model_validate(job) for job in jobs]


@app.patch("/jobs/{job_id}/progress", status_code=204)
async def report(job_id: uuid.UUID, progress: Progress, session: Session) -> None:
    await _change(session, job_id, **progress.model_dump())


@app.post("/jobs/{job_id}/assets", status_code=201)
async def link(job_id: uuid.UUID, asset: NewAsset, session: Session) -> int:
    linked = Asset(job_id=job_id, **asset.model_dump())
    session.add(linked)
    await session.commit()
    return linked.id


@app.post("/jobs/{job_id}/complete", status_code=204)
async def complete(job_id: uuid.UUID, done: Result, session: Session) -> None:
    await _change(session, job_id, status="completed", progress=100, result=done.result)


async def _change(session: AsyncSession, job_id: uuid.UUID, **values: Any) -> None:
    running = update(Job).where(Job.id == job_id, Job.status == "running")
    changed = await session.execute(running.values(**values).returning(Job.id))
    if changed.first() is None:
        raise HTTPException(409)
    await session.commit()
