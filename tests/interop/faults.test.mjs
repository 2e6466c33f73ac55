// What takes the JavaScript servers down or makes them lose something, and must not happen here.
// Most of these fail against them, by intent.
import assert from "node:assert/strict"
import { test } from "node:test"
import { next as Automerge } from "@automerge/automerge"
import { cbor } from "@automerge/automerge-repo"
import { content, converged } from "./lib/clients.mjs"
import { emptySync, RawPeer, unknownDocumentId } from "./lib/raw.mjs"
import { freePort } from "./lib/server.mjs"
import { deadline, passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 60_000

/** How soon a refusal is due: what people feel as at once. */
const PROMPT_MS = 500

const garbage = {
  "CBOR null": [0xf6],
  "invalid CBOR": [0xff, 0xff],
  "an empty frame": [],
  "a CBOR number": [0x01],
  "a map without type": [0xa0],
  "an endless array": [0x9f, ...new Array(1_000).fill(0x9f)],
  "a promised gigabyte": [0x5a, 0x40, 0x00, 0x00, 0x00],
  "a promised billion of entries": [0xba, 0x40, 0x00, 0x00, 0x00],
}

for (const [name, bytes] of Object.entries(garbage)) {
  for (const join of [false, true]) {
    const when = join ? "after" : "before"
    test(`${name} ${when} the handshake hurts nobody else`, { timeout }, async t => {
      const world = await World.start(t)
      const [alice, bob] = await world.clients(2)
      const hers = alice.create({ title: "before" })
      await (await world.raw()).sync(hers.documentId)
      const his = await bob.find(hers.url)
      let disconnected = 0
      for (const client of [alice, bob]) {
        client.repo.networkSubsystem.on("peer-disconnected", () => (disconnected += 1))
      }

      const attacker = await world.raw({ join })
      attacker.sendBytes(Buffer.from(bytes))
      // Whatever follows on a second connection has overtaken nothing: the frame was handled.
      const second = await world.raw()
      await second.sync(hers.documentId)

      hers.change(doc => (doc.title = "after"))
      await converged([hers, his], doc => doc.title === "after")
      assert.equal(disconnected, 0)
      assert.ok(world.server.running)
    })
  }
}

for (const documentId of ["", "nonsense", "1111", "x".repeat(200), "4NMNnkMhL8jXrdJ9jamS58PAVdXw"]) {
  const name = documentId.length > 40 ? `${documentId.length} letters` : `"${documentId}"`
  test(`a request for the invalid id ${name} is refused at once`, { timeout }, async t => {
    const world = await World.start(t)
    const raw = await world.raw()
    raw.send({ type: "request", documentId, data: emptySync() })
    const refusal = await raw.next("doc-unavailable", { ms: PROMPT_MS })
    assert.equal(refusal.documentId, documentId)
    assert.equal(refusal.targetId, raw.peerId)
  })
}

test("an id longer than any is refused or ends its connection, at once", { timeout }, async t => {
  const world = await World.start(t)
  const raw = await world.raw()
  raw.send({ type: "request", documentId: "x".repeat(10_000), data: emptySync() })
  const refused = raw.next("doc-unavailable", { ms: PROMPT_MS })
  await deadline(PROMPT_MS, "a refusal", Promise.any([refused, raw.closed]))
  await refused.catch(() => {})
  assert.ok((await world.raw()).open)
})

test("each later request for a document nobody has is refused again", { timeout }, async t => {
  const world = await World.start(t)
  const raw = await world.raw()
  const documentId = unknownDocumentId()
  for (let n = 0; n < 3; n += 1) {
    raw.send({ type: "request", documentId, data: emptySync() })
    await raw.next("doc-unavailable", { ms: PROMPT_MS })
  }
})

test("a version that the server does not speak is an error and a close", { timeout }, async t => {
  const world = await World.start(t)
  const raw = await world.raw({ join: false })
  raw.join({ versions: ["2"] })
  const error = await raw.next("error")
  assert.match(error.message, /version/)
  await deadline(5_000, "the close", raw.closed)
})

test("no version at all counts as version 1", { timeout }, async t => {
  const world = await World.start(t)
  const raw = await world.raw({ join: false })
  raw.join({ versions: undefined })
  assert.equal((await raw.next("peer")).selectedProtocolVersion, "1")
})

test("a second connection with the same peer id replaces the first", { timeout }, async t => {
  const world = await World.start(t)
  const writer = await world.client()
  const handle = writer.create({ n: 0 })
  const first = await world.raw({ peerId: "same" })
  await first.sync(handle.documentId)
  const second = await world.raw({ peerId: "same" })
  await deadline(5_000, "the first connection to be closed", first.closed)
  await second.sync(handle.documentId)
  handle.change(doc => (doc.n = 1))
  await second.next("sync", { matching: message => message.documentId === handle.documentId })
  assert.ok(second.open)
})

test("the server's storage id is the same after restarts", { timeout }, async t => {
  const world = await World.start(t)
  const before = (await world.raw()).welcome.peerMetadata
  assert.match(before.storageId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  assert.equal(before.isEphemeral, false)
  await world.server.restart()
  assert.deepEqual((await world.raw()).welcome.peerMetadata, before)
  await world.server.kill9()
  await world.server.start()
  assert.deepEqual((await world.raw()).welcome.peerMetadata, before)
})

test("who connects while the server starts is welcomed", { timeout }, async t => {
  const world = World.unstarted(t, { port: await freePort() })
  for (let round = 0; round < 5; round += 1) {
    const listening = world.server.spawn()
    for (let accepted = 0; accepted < 10; ) {
      let raw
      try {
        raw = await RawPeer.connect(world.server.url, { join: false })
      } catch {
        assert.ok(world.server.running, world.server.log)
        continue
      }
      accepted += 1
      raw.join()
      await raw.next("peer", { ms: 3_000 })
      await raw.close()
    }
    await listening
    await world.server.kill9()
  }
})

test("an acknowledged edit survives kill -9, ten times of ten", { timeout: 120_000 }, async t => {
  const world = await World.start(t)
  const { storageId } = (await world.raw()).welcome.peerMetadata
  for (let round = 0; round < 10; round += 1) {
    // Without storage: if the server loses the edit, nobody has it.
    const writer = await world.client()
    const handle = writer.create({ round })
    const killed = new Promise(resolve => {
      const look = () => {
        const acknowledged = handle.getSyncInfo(storageId)?.lastHeads ?? []
        if (acknowledged.join() !== handle.heads().join()) return
        // In the very event: not a tick later.
        resolve(world.server.kill9())
        handle.off("remote-heads", look)
      }
      handle.on("remote-heads", look)
    })
    await deadline(10_000, "the acknowledgement", killed)
    await writer.close()
    await world.server.start()
    const reader = await world.client()
    const found = await reader.find(handle.url)
    assert.equal(content(found).round, round)
    await reader.close()
  }
})

test("a sync message that names an edit's heads means it is durable", { timeout: 120_000 }, async t => {
  const world = await World.start(t)
  for (let round = 0; round < 10; round += 1) {
    const documentId = unknownDocumentId()
    const doc = Automerge.from({ round })
    await (await world.raw()).sync(documentId, doc)
    await world.server.kill9()
    await world.server.start()
    const found = await (await world.raw()).sync(documentId)
    assert.equal(found.round, round)
  }
})

test("80 connections dropped with a message in flight heal, and then it is quiet", { timeout: 180_000 }, async t => {
  const world = await World.start(t)
  const proxies = await Promise.all([1, 2, 3, 4].map(() => world.proxy()))
  // 2.6 clients: those of 2.5 lose a document when a message arrives while their socket closes.
  const generation = "next"
  const pairs = await Promise.all(
    proxies.map(async proxy => {
      const writer = await world.client({ generation, via: proxy })
      const reader = await world.client({ generation })
      const hers = writer.create({ writer: [], reader: [] })
      await (await world.raw()).sync(hers.documentId)
      return { proxy, writer, hers, his: await reader.find(hers.url) }
    })
  )
  for (let round = 0; round < 20; round += 1) {
    await Promise.all(
      pairs.map(async ({ proxy, writer, hers, his }) => {
        const dropped = proxy.cutOnNextPiece(round % 2 === 0 ? "server" : "client")
        hers.change(doc => doc.writer.push(round))
        his.change(doc => doc.reader.push(round))
        await deadline(10_000, "a message in flight", dropped)
        await until("the client to notice", () => writer.repo.peers.length === 0)
        await writer.connected()
      })
    )
  }
  for (const { hers, his } of pairs) {
    const whole = doc => doc.writer.length === 20 && doc.reader.length === 20
    await converged([hers, his], whole)
  }
  // Replies to what converged may still be under way; after them nothing may follow but pings.
  await passing(1_000)
  const before = proxies.map(proxy => proxy.pieces)
  await passing(1_000)
  const during = proxies.map((proxy, i) => proxy.pieces - before[i])
  assert.ok(during.every(pieces => pieces <= 4), `pieces in a quiet second: ${during}`)
})

test("memory returns when the clients have left", { timeout: 120_000 }, async t => {
  const world = await World.start(t, { env: { CONCORD_IDLE_MS: "500" } })
  const MIB = 1024 * 1024
  const createAndLeave = async count => {
    const raw = await world.raw()
    for (let n = 0; n < count; n += 1) {
      await raw.sync(unknownDocumentId(), Automerge.from({ n, title: "a small document" }))
    }
    await raw.close()
  }
  // What a first document costs once (pools, caches) is no leak.
  await createAndLeave(30)
  const before = world.server.residentBytes()
  await createAndLeave(300)
  const allowed = before + 6 * MIB
  const grown = () => ((world.server.residentBytes() - before) / MIB).toFixed(1)
  try {
    await until("memory to return", () => world.server.residentBytes() <= allowed, { ms: 20_000 })
  } catch (error) {
    throw new Error(`${error.message}: ${grown()} MiB more than before`)
  }
})

test("a frame with a foreign sender is not passed on", { timeout }, async t => {
  const world = await World.start(t)
  const writer = await world.client()
  const handle = writer.create({ n: 0 })
  const { documentId } = handle
  const [mallory, bob] = [await world.raw(), await world.raw()]
  await mallory.sync(documentId)
  await bob.sync(documentId)
  const say = (senderId, count) =>
    mallory.send({
      type: "ephemeral",
      documentId,
      senderId,
      count,
      sessionId: `session-of-${senderId}`,
      data: cbor.encode({ count }),
    })
  say(writer.repo.networkSubsystem.peerId, 1)
  say(mallory.peerId, 2)
  const heard = await bob.next("ephemeral")
  assert.equal(heard.senderId, mallory.peerId)
  assert.equal(heard.count, 2)
})

test("an ephemeral message sent twice arrives once", { timeout }, async t => {
  const world = await World.start(t)
  const writer = await world.client()
  const handle = writer.create({ n: 0 })
  const { documentId } = handle
  const [alice, bob] = [await world.raw(), await world.raw()]
  await alice.sync(documentId)
  await bob.sync(documentId)
  for (const count of [1, 1, 2, 1, 2, 3]) {
    alice.send({ type: "ephemeral", documentId, count, sessionId: "s", data: cbor.encode(count) })
  }
  const counts = []
  while (counts.at(-1) !== 3) counts.push((await bob.next("ephemeral")).count)
  assert.deepEqual(counts, [1, 2, 3])
})
