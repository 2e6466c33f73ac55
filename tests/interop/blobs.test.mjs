// Attachments with nothing but fetch: whole, in part, cut and resumed.
import assert from "node:assert/strict"
import { test } from "node:test"
import { Server, isConcord } from "./lib/server.mjs"

// The input of BLAKE3's own test vectors, of 102,400 bytes, and what they say of it.
const bytes = Uint8Array.from({ length: 102_400 }, (_, n) => n % 251)
const HASH = "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"

test("an attachment goes up and comes down with fetch", { timeout: 60_000, skip: !isConcord }, async t => {
  const server = await Server.start()
  t.after(() => server.dispose())
  const url = `${server.url.replace("ws:", "http:")}/v1/blobs/${HASH}`
  assert.equal((await fetch(url)).status, 404)

  const put = (body, range) => fetch(url, { method: "PUT", body, headers: { "content-range": range } })
  const first = await put(bytes.slice(0, 70_000), "bytes 0-69999/102400")
  assert.deepEqual([first.status, first.headers.get("upload-offset")], [202, "65536"])
  const asked = await put(undefined, "bytes */102400")
  const offset = Number(asked.headers.get("upload-offset"))
  assert.equal(offset, 65_536)
  const rest = await put(bytes.slice(offset), `bytes ${offset}-102399/102400`)
  assert.equal(rest.status, 201, await rest.text())

  const got = await fetch(url)
  assert.deepEqual(new Uint8Array(await got.arrayBuffer()), bytes)
  const part = await fetch(url, { headers: { range: "bytes=65530-65545" } })
  assert.equal(part.status, 206)
  assert.deepEqual(new Uint8Array(await part.arrayBuffer()), bytes.slice(65_530, 65_546))

  const wrong = await fetch(url.replace("bc3e", "bc3f"), { method: "PUT", body: bytes })
  assert.equal(wrong.status, 422)

  // As a document names it.
  const named = new URL(`attachment:${HASH}?length=102400&type=image%2Fpng&name=a%20b.png`)
  assert.equal(named.pathname, HASH)
  assert.equal(named.searchParams.get("name"), "a b.png")
})
