// Waiting for something, always with an end.

/** How long anything may take unless a test says otherwise. */
export const WAIT_MS = 15_000

/** The promise's outcome, or an error that names what was waited for. */
export async function deadline(ms, what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Resolves as soon as `holds()` is true, looking again at each of the handles' events and, for what
 * has no event, every 20 ms.
 */
export async function until(what, holds, { handles = [], ms = WAIT_MS } = {}) {
  if (holds()) return
  let poll
  let look
  const seen = new Promise((resolve, reject) => {
    look = () => {
      try {
        if (holds()) resolve()
      } catch (error) {
        reject(error)
      }
    }
    for (const handle of handles) handle.on("heads-changed", look)
    poll = setInterval(look, 20)
  })
  try {
    await deadline(ms, what, seen)
  } finally {
    clearInterval(poll)
    for (const handle of handles) handle.off("heads-changed", look)
  }
}

/** Real time passing, for tests whose subject is that nothing happens meanwhile. */
export const passing = ms => new Promise(resolve => setTimeout(resolve, ms))
