// Which documents changed, as a client hears of it that speaks concord.v1 with nothing but a WebSocket
// and CBOR, and as anybody asks over HTTP; written by a client that knows of neither.
import assert from "node:assert/strict"
import { test } from "node:test"
import { ConcordClient } from "./lib/concord.mjs"
import { isConcord } from "./lib/server.mjs"
import { passing, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

test("what changed is listed and told", { timeout: 60_000, skip: !isConcord }, async t => {
  const world = await World.start(t)
  const client = await world.client()
  const handles = Array.from({ length: 5 }, (_, n) => client.create({ n }))
  const ids = handles.map(handle => handle.documentId).sort()
  const concord = await ConcordClient.connect(world.server.url)
  const told = new Set()
  const stop = await concord.listen("/v1/catalogue/events?limit=2", (name, page) => {
    assert.equal(name, "page")
    page.documents.forEach(({ document }) => told.add(document))
  })

  /** All in pages of two, over the socket. */
  const all = async () => {
    const found = []
    let page = { cursor: undefined, has_more: true }
    while (page.has_more) {
      const after = page.cursor === undefined ? "" : `&after=${page.cursor}`
      page = (await concord.call("GET", `/v1/catalogue?limit=2${after}`)).body
      found.push(...page.documents)
    }
    return { found, cursor: page.cursor }
  }
  let listed = await all()
  for (let tries = 0; tries < 500 && listed.found.length < 5; tries += 1) {
    await passing(20)
    listed = await all()
  }
  assert.deepEqual(listed.found.map(({ document }) => document).sort(), ids)

  handles[3].change(doc => (doc.n = 30))
  const http = world.server.url.replace("ws:", "http:")
  const news = async () => {
    const answer = await fetch(`${http}/v1/catalogue?after=${listed.cursor}`)
    return (await answer.json()).documents.map(({ document }) => document)
  }
  for (let tries = 0; tries < 500 && (await news()).length === 0; tries += 1) await passing(20)
  assert.deepEqual(await news(), [handles[3].documentId])
  await until("to be told", () => told.has(handles[3].documentId), { handles: [] })
  stop()
  await concord.close()
})
