// A client that speaks concord.v1 with nothing but a WebSocket and CBOR: it is told of the schema, and
// lists, decides and hears of conflicts over the socket that it has.
import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { content, converged } from "./lib/clients.mjs"
import { ConcordClient } from "./lib/concord.mjs"
import { isConcord } from "./lib/server.mjs"
import { passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const SCHEMA = '[types.trip.fields]\ncount = "integer"\n'

/** The one conflict that is open. */
async function one(client) {
  for (let tries = 0; tries < 500; tries += 1) {
    const { status, body } = await client.call("GET", "/v1/conflicts?limit=10")
    assert.equal(status, 200)
    if (body.complete && body.conflicts.length === 1) return body.conflicts[0]
    await passing(30)
  }
  throw new Error("not one conflict")
}

test("conflicts go over the socket", { timeout: 60_000, skip: !isConcord }, async t => {
  const world = World.unstarted(t)
  const file = join(world.directory(), "schema.toml")
  writeFileSync(file, SCHEMA)
  process.env.CONCORD_SCHEMA = file
  t.after(() => delete process.env.CONCORD_SCHEMA)
  await world.server.start()

  const concord = await ConcordClient.connect(world.server.url)
  const events = []
  const stop = await concord.listen("/v1/conflicts/events", (name, data) => events.push({ name, data }))
  const hash = createHash("sha256").update(SCHEMA).digest("hex")
  assert.deepEqual(concord.schema, { hash, text: SCHEMA })
  const asked = await concord.call("GET", "/v1/schema")
  assert.deepEqual([asked.status, asked.etag, asked.body], [200, `"${hash}"`, SCHEMA])
  const informed = await ConcordClient.connect(world.server.url, { holds: hash })
  assert.equal((await informed.call("GET", "/v1/conflicts")).body.open, 0)
  assert.equal(informed.schema, undefined)
  await informed.close()

  const lines = [await world.proxy(), await world.proxy()]
  const clients = await Promise.all(lines.map(via => world.client({ via })))
  const hers = clients[0].create({ count: 1 })
  const his = await clients[1].find(hers.url)
  await converged([hers, his], doc => doc.count === 1)
  lines.forEach(line => line.goOffline())
  hers.change(doc => (doc.count = 5))
  his.change(doc => (doc.count = 7))
  lines.forEach(line => line.goOnline())
  const first = await one(concord)
  const shown = await concord.call("GET", `/v1/conflicts/${first.id}`)
  assert.equal(shown.etag, `"${first.id}"`)
  assert.deepEqual(shown.body.sides.map(({ value }) => value).sort(), [5, 7])

  // Somebody else writes a third value without knowing of either.
  await converged([hers, his], doc => doc.count === 5 || doc.count === 7)
  lines[1].goOffline()
  const decide = (id, choice) =>
    concord.call("POST", `/v1/conflicts/${id}/resolve`, { ifMatch: `"${id}"`, body: { choice } })
  his.change(doc => (doc.count = 8))
  const decided = await decide(first.id, { value: 6 })
  assert.equal(decided.status, 200, JSON.stringify(decided.body))
  await until("the decision", () => content(hers).count === 6, { handles: [hers] })
  lines[1].goOnline()
  const second = await one(concord)
  assert.notEqual(second.id, first.id)
  const late = await decide(first.id, "before")
  assert.deepEqual([late.status, late.body.successor], [409, second.id])
  assert.equal((await decide(second.id, { value: 8 })).status, 200)
  await until("the decision", () => content(hers).count === 8, { handles: [hers] })

  const heard = () => events.map(({ name, data }) => `${name} ${data.id ?? data.conflict.id}`)
  const expected = [`opened ${first.id}`, `closed ${first.id}`, `opened ${second.id}`, `closed ${second.id}`]
  await until("the events", () => expected.every(event => heard().includes(event)), { handles: [] })
  stop()
  await concord.close()
})
