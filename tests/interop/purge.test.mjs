// What is deleted expires, and the relay purges it: clients that never had it hear so at once, and
// those that have it lose nothing.
import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { content, converged, generations } from "./lib/clients.mjs"
import { isConcord } from "./lib/server.mjs"
import { passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 60_000
const schema = `
[types.task]
purge_deleted_after = "1s"
[types.task.fields]
title = "string"
`

for (const generation of generations) {
  test(`${generation}: a purged document is unavailable at once, and stays where it is`, { timeout, skip: !isConcord }, async t => {
    const env = {}
    const world = World.unstarted(t, { env })
    env.CONCORD_SCHEMA = join(world.directory(), "schema.toml")
    writeFileSync(env.CONCORD_SCHEMA, schema)
    await world.server.start()
    const line = await world.proxy()
    const alice = await world.client({ generation })
    const bob = await world.client({ via: line, generation })
    const hers = alice.create({ type: "task", title: "Tiles" })
    const others = alice.create({ type: "note", title: "Shopping" })
    const his = await bob.find(hers.url)
    await converged([hers, his], doc => doc.title === "Tiles")

    line.goOffline()
    await until("the client to notice", () => bob.repo.peers.length === 0)
    his.change(doc => (doc.more = "written away"))
    hers.change(doc => (doc["concord:deleted"] = new Date()))
    const find = async () => {
      const carol = await world.client({ generation })
      const started = performance.now()
      try {
        await carol.find(hers.url)
        return null
      } catch (error) {
        if (!/unavailable/.test(error.message)) throw error
        return performance.now() - started
      }
    }
    let took = await find()
    while (took === null) {
      await passing(200)
      took = await find()
    }
    assert.ok(took < 500, `took ${took} ms`)

    // Who was away comes back with what they wrote: nothing of it arrives, and nothing of it goes.
    line.goOnline()
    await until("the client to be back", () => bob.repo.peers.length === 1)
    hers.change(doc => (doc.still = "here"))
    his.change(doc => (doc.again = "and again"))
    const shared = await bob.find(others.url)
    assert.equal(content(shared).title, "Shopping", "other documents go on")
    assert.ok((await find()) < 500)
    assert.equal(content(hers).still, "here")
    assert.equal(content(his).more, "written away")
    assert.equal(content(his).again, "and again")
    assert.equal(content(hers).more, undefined)
  })
}
