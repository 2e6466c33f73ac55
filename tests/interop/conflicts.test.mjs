// People edit the same places with the clients that they have, offline. What cannot be merged is in
// the queue of the relay, as in that of a Rust peer, and a decision made there reaches everybody.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { test } from "node:test"
import { promisify } from "node:util"
import { content, converged, generations } from "./lib/clients.mjs"
import { isConcord } from "./lib/server.mjs"
import { passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 90_000
const run = promisify(execFile)

/** The conflicts that are open at the relay, once it has looked at everything. */
async function queue(world, count) {
  const url = `http://127.0.0.1:${world.server.port}/v1/conflicts`
  for (let tries = 0; tries < 500; tries += 1) {
    const page = await (await fetch(url)).json()
    if (page.complete && page.conflicts.length === count) return page.conflicts
    await passing(30)
  }
  throw new Error(`not ${count} conflicts: ${await (await fetch(url)).text()}`)
}

/** The same, found by a Rust peer that has the document from the relay. */
async function queueOfPeer(world, url, directory) {
  const env = { ...process.env, CONCORD_DIR: directory, CONCORD_URL: world.server.url }
  await run(process.env.CONCORD_BIN, ["doc", "get", url], { env })
  const { stdout } = await run(process.env.CONCORD_BIN, ["conflicts", "ls", "--json"], { env })
  return JSON.parse(stdout)
}

const ids = conflicts => conflicts.map(({ id }) => id).sort()

for (const generation of generations) {
  test(`${generation}: what clients disagree about is in the queue`, { timeout, skip: !isConcord }, async t => {
    const world = await World.start(t)
    const lines = [await world.proxy(), await world.proxy()]
    const clients = await Promise.all(lines.map(via => world.client({ via, generation })))
    const hers = clients[0].create({
      title: "Trip",
      count: 1,
      done: false,
      list: ["a", "b", "c"],
      info: { city: "Rome", days: 3 },
      notes: "We go.",
    })
    const his = await clients[1].find(hers.url)
    await converged([hers, his], doc => doc.notes === "We go.")

    lines.forEach(line => line.goOffline())
    hers.change(doc => {
      doc.count = 5
      doc.done = true
      delete doc.info
      doc.list.splice(0, 1)
      doc.people = ["Ann"]
    })
    his.change(doc => {
      doc.count = 7
      doc.done = true
      doc.info.days = 4
      doc.list[0] = "A"
      doc.list.push("d")
      doc.people = ["Ben"]
      doc.title = "Our trip"
    })
    lines.forEach(line => line.goOnline())
    await converged([hers, his], doc => doc.title === "Our trip" && !doc.info && doc.list.length === 4)

    const open = await queue(world, 4)
    assert.deepEqual(
      Object.fromEntries(open.map(({ path, code }) => [path, code])),
      { count: "value", info: "edit_delete", "list[0]": "edit_delete", people: "twin" },
      "equal values, other elements and other fields merge"
    )
    const peer = await queueOfPeer(world, hers.url, world.directory())
    assert.deepEqual(ids(peer), ids(open))

    const count = open.find(({ path }) => path === "count")
    const url = `http://127.0.0.1:${world.server.port}/v1/conflicts/${count.id}`
    const shown = await (await fetch(url)).json()
    assert.deepEqual([shown.before, ...shown.sides.map(({ value }) => value).sort()], [1, 5, 7])
    const decided = await fetch(`${url}/resolve`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ choice: { value: 6 }, reason: "in between" }),
    })
    assert.equal(decided.status, 200, await decided.text())
    for (const handle of [hers, his]) {
      await until("the decision", () => content(handle).count === 6, { handles: [handle] })
    }
    const left = await queue(world, 3)
    assert.ok(!ids(left).includes(count.id))

    // A client settles another one as people do who know of no queue: it writes, having seen all.
    hers.change(doc => (doc.people = ["Ann", "Ben"]))
    assert.ok(!(await queue(world, 2)).some(({ path }) => path === "people"))
  })
}
