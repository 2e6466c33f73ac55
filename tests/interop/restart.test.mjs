// The server goes away and comes back while people type. Nothing they typed may be missing.
import assert from "node:assert/strict"
import { test } from "node:test"
import { content, converged, generations } from "./lib/clients.mjs"
import { isConcord } from "./lib/server.mjs"
import { passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 90_000

for (const generation of generations) {
  test(`${generation}: a polite restart in mid-session loses nothing`, { timeout }, async t => {
    await typeThroughRestart(t, generation, async server => {
      const code = await server.terminate()
      if (isConcord) assert.equal(code, 0, server.log)
    })
  })

  test(`${generation}: kill -9 in mid-session loses nothing`, { timeout }, async t => {
    await typeThroughRestart(t, generation, server => server.kill9())
  })
}

test("what was stored before a restart is found after it by a new client", { timeout }, async t => {
  const world = await World.start(t)
  const writer = await world.client()
  const raw = await world.raw()
  const documents = Array.from({ length: 20 }, (_, n) => writer.create({ n }))
  for (const handle of documents) await raw.sync(handle.documentId)
  if (!isConcord) await passing(1_000)
  await writer.close()
  await world.server.restart()
  const reader = await world.client()
  for (const [n, handle] of documents.entries()) {
    assert.equal(content(await reader.find(handle.url)).n, n)
  }
})

/** Two clients type while the server is taken down three times by `stop`. */
async function typeThroughRestart(t, generation, stop) {
  const world = await World.start(t)
  const clients = await world.clients(2, { generation })
  const hers = clients[0].create({ typed: [[], []], text: "" })
  await until("the upload", () => hers.heads().length > 0)
  const raw = await world.raw()
  await raw.sync(hers.documentId)
  const handles = [hers, await clients[1].find(hers.url)]

  const typed = [0, 0]
  const type = setInterval(() => {
    handles.forEach((handle, who) =>
      handle.change(doc => doc.typed[who].push(typed[who]++))
    )
  }, 10)
  t.after(() => clearInterval(type))
  for (let round = 0; round < 3; round += 1) {
    const before = typed[0]
    await until("some typing", () => typed[0] >= before + 30)
    await stop(world.server)
    await until("typing without a server", () => typed[0] >= before + 60)
    await world.server.start()
    await Promise.all(clients.map(client => client.connected()))
  }
  const last = typed[0]
  await until("typing after the last start", () => typed[0] >= last + 30)
  clearInterval(type)

  const whole = doc => doc.typed.every((list, who) => list.length === typed[who])
  await converged(handles, whole)
  // Not through the memory of the two: a third reads what the server has.
  const third = await world.client()
  await converged([...handles, await third.find(hers.url)], whole)
  for (const list of content(hers).typed) assert.deepEqual([...list], list.map((_, i) => i))
}
