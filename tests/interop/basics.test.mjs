// What every automerge-repo application does, with one generation of clients and with all mixed.
import assert from "node:assert/strict"
import { test } from "node:test"
import * as Automerge from "@automerge/automerge"
import { RawString, updateText } from "@automerge/automerge-repo"
import { content, converged, generations } from "./lib/clients.mjs"
import { unknownDocumentId } from "./lib/raw.mjs"
import { findWhenUploaded } from "./lib/uploaded.mjs"
import { deadline, passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 60_000

for (const generation of generations) {
  const only = { generation }

  test(`${generation}: a document created on one client is found on another`, { timeout }, async t => {
    const world = await World.start(t)
    const [alice, bob] = await world.clients(2, only)
    const hers = alice.create({ title: "hello" })
    // No pause between: the request may overtake the upload.
    const his = await findWhenUploaded(bob, hers.url)
    await converged([hers, his], doc => doc.title === "hello")
    his.change(doc => (doc.title = "hello yourself"))
    await converged([hers, his], doc => doc.title === "hello yourself")
  })

  test(`${generation}: concurrent edits of maps and lists converge`, { timeout }, async t => {
    const world = await World.start(t)
    const clients = await world.clients(4, only)
    const first = clients[0].create({ map: {}, list: [] })
    const others = clients.slice(1).map(client => findWhenUploaded(client, first.url))
    const handles = [first, ...(await Promise.all(others))]
    const rounds = 10
    for (let round = 0; round < rounds; round += 1) {
      handles.forEach((handle, who) =>
        handle.change(doc => {
          doc.map[`${who}-${round}`] = round
          doc.list.push(who)
        })
      )
      // Lets messages pass between rounds, so that edits are concurrent with deliveries.
      await passing(5)
    }
    const edits = rounds * handles.length
    await converged(handles, doc => Object.keys(doc.map).length === edits && doc.list.length === edits)
  })

  test(`${generation}: edits made offline arrive when the client is back`, { timeout }, async t => {
    const world = await World.start(t)
    const proxy = await world.proxy()
    const alice = await world.client(only)
    const bob = await world.client({ ...only, via: proxy })
    const hers = alice.create({ list: ["start"] })
    const his = await findWhenUploaded(bob, hers.url)
    proxy.goOffline()
    await until("the client to notice", () => bob.repo.peers.length === 0)
    for (let i = 0; i < 20; i += 1) {
      hers.change(doc => doc.list.push(`online ${i}`))
      his.change(doc => doc.list.push(`offline ${i}`))
    }
    proxy.goOnline()
    await converged([hers, his], doc => doc.list.length === 41)
  })

  test(`${generation}: presence reaches the others once and not its sender`, { timeout }, async t => {
    const world = await World.start(t)
    const clients = await world.clients(3, only)
    const first = clients[0].create({ title: "room" })
    const others = clients.slice(1).map(client => findWhenUploaded(client, first.url))
    const handles = [first, ...(await Promise.all(others))]
    const heard = handles.map(() => [])
    handles.forEach((handle, i) =>
      handle.on("ephemeral-message", ({ message }) => heard[i].push(message.n))
    )
    for (let n = 0; n < 5; n += 1) first.broadcast({ n })
    await until("all presence", () => heard[1].length >= 5 && heard[2].length >= 5)
    // An edit made after them has gone the same way when it arrives: so would have duplicates.
    handles[1].change(doc => (doc.title = "done"))
    await converged(handles, doc => doc.title === "done")
    assert.deepEqual(heard, [[], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
  })

  test(`${generation}: a document that nobody has is refused at once`, { timeout }, async t => {
    const world = await World.start(t)
    const alice = await world.client(only)
    const started = performance.now()
    await assert.rejects(alice.find(`automerge:${unknownDocumentId()}`), /unavailable/)
    const took = performance.now() - started
    assert.ok(took < 500, `took ${took} ms`)
  })
}

// 1.2 shows no document before its first content.
for (const generation of ["current", "next"]) {
  test(`${generation}: an empty document is found`, { timeout }, async t => {
    const world = await World.start(t)
    const [alice, bob] = await world.clients(2, { generation })
    const hers = alice.create()
    const his = await findWhenUploaded(bob, hers.url)
    await converged([hers, his], () => true)
  })
}

test("a refused document becomes ready when it arrives later", { timeout }, async t => {
  const world = await World.start(t)
  const source = await world.client()
  const proxy = await world.proxy()
  const alice = await world.client({ via: proxy })
  const bob = await world.client()
  proxy.goOffline()
  await until("the client to notice", () => alice.repo.peers.length === 0)
  const hers = alice.create({ title: "late" })
  await assert.rejects(bob.find(hers.url), /unavailable/)
  const his = bob.repo.handles[hers.documentId]
  proxy.goOnline()
  await deadline(10_000, "the document", his.whenReady(["ready"]))
  await converged([hers, his], doc => doc.title === "late")
  // Others find it too.
  assert.equal(content(await source.find(hers.url)).title, "late")
})

// Automerge itself is the same package for these two; 1.2 brings its own.
for (const generation of ["current", "next"]) {
  test(`${generation}: counters and text edited at once by many add up`, { timeout }, async t => {
    const world = await World.start(t)
    const clients = await world.clients(12, { generation })
    const first = clients[0].create({ count: new Automerge.Counter(0), text: "0123456789" })
    const others = clients.slice(1).map(client => findWhenUploaded(client, first.url))
    const handles = [first, ...(await Promise.all(others))]
    await converged(handles, doc => doc.text.length === 10)
    for (let round = 0; round < 5; round += 1) {
      handles.forEach((handle, who) =>
        handle.change(doc => {
          doc.count.increment(who)
          Automerge.splice(doc, ["text"], round, 0, String.fromCharCode(97 + who))
        })
      )
      await passing(5)
    }
    const sum = 5 * ((12 * 11) / 2)
    await converged(handles, doc => doc.count.value === sum && doc.text.length === 10 + 5 * 12)
  })
}

test("many documents, each with its own readers", { timeout }, async t => {
  const world = await World.start(t)
  const [alice, bob, carol] = await world.clients(3)
  const hers = Array.from({ length: 40 }, (_, n) => alice.create({ n, edits: [] }))
  await Promise.all(
    hers.map(async (handle, n) => {
      const reader = n % 2 === 0 ? bob : carol
      const other = await findWhenUploaded(reader, handle.url)
      other.change(doc => doc.edits.push(n))
      await converged([handle, other], doc => doc.n === n && doc.edits.length === 1)
    })
  )
  // A document that a client never asked for is not pressed on it.
  assert.equal(bob.repo.handles[hers[1].documentId], undefined)
})

test("large values and every scalar kind arrive as they were", { timeout }, async t => {
  const world = await World.start(t)
  const [alice, bob] = await world.clients(2)
  const hers = alice.create({
    bytes: new Uint8Array(300_000).map((_, i) => (i * 7919) % 251),
    when: new Date(1_700_000_000_000),
    raw: new RawString("as is"),
    numbers: [0, -1, 2 ** 31, 2 ** 40, 0.1, -1.5e-300],
    others: [true, false, null],
    text: "ä𝄞".repeat(1_000),
  })
  const his = await findWhenUploaded(bob, hers.url)
  await converged([hers, his], doc => doc.text.length === 3_000)
  assert.deepEqual(content(his), content(hers))
  his.change(doc => updateText(doc, ["text"], "short"))
  await converged([hers, his], doc => doc.text === "short")
})

test("all generations edit one document together", { timeout }, async t => {
  const world = await World.start(t)
  const clients = await Promise.all(generations.map(generation => world.client({ generation })))
  for (const creator of clients) {
    const first = creator.create({ list: [] })
    const others = clients.filter(client => client !== creator)
    const found = others.map(client => findWhenUploaded(client, first.url))
    const handles = [first, ...(await Promise.all(found))]
    // A client may make the document and fill it with two changes, and others see the first alone.
    await converged(handles, doc => Array.isArray(doc.list))
    handles.forEach((handle, who) => {
      for (let n = 0; n < 5; n += 1) handle.change(doc => doc.list.push(`${who}:${n}`))
    })
    await converged(handles, doc => doc.list.length === 15)
  }
})
