// Documents that are on their way to the server.
import { deadline } from "./wait.mjs"

/**
 * Finds a document that is being uploaded: a request that overtakes the upload is refused, and the
 * document must then reach the requester by itself.
 */
export async function findWhenUploaded(client, url) {
  try {
    return await client.find(url)
  } catch (error) {
    if (!/unavailable/.test(error.message)) throw error
    const handle = client.repo.handles[url.slice("automerge:".length)]
    await deadline(10_000, `the upload of ${url}`, handle.whenReady(["ready"]))
    return handle
  }
}
