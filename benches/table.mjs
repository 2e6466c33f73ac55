// Prints the medians of the JSON reports in a directory as one Markdown table.
// Usage: node table.mjs DIR "SCENARIO ..." "SERVER ..."; files are SCENARIO.SERVER.ROUND.json
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const [directory, scenarios, servers] = process.argv.slice(2)
const serverNames = servers.split(" ").filter(Boolean)

// What is shown of each scenario, best first.
const shown = {
  "spaced-small": ["latency.p50_ms", "latency.p95_ms", "latency.p99_ms", "latency.max_ms"],
  "spaced-large": ["latency.p50_ms", "latency.p95_ms", "latency.p99_ms", "latency.max_ms"],
  "saturate-small": ["figures.delivered_changes_per_s", "server.cpu_s", "server.peak_mib"],
  "saturate-large": ["figures.delivered_changes_per_s", "server.cpu_s", "server.peak_mib"],
  many: [
    "figures.documents_per_s", "server.rss_idle_mib", "server.rss_held_mib",
    "server.rss_settled_mib",
  ],
  connect: ["figures.connections_per_s", "figures.memory_a_connection_kib"],
  join: ["figures.first_client_s", "figures.last_client_s", "server.cpu_s", "server.peak_mib"],
}

const reports = new Map()
for (const name of readdirSync(directory).sort()) {
  const parts = /^([a-z-]+)\.(.+)\.(\d+)\.json$/.exec(name)
  if (!parts) continue
  const key = `${parts[1]} ${parts[2]}`
  const report = JSON.parse(readFileSync(join(directory, name), "utf8"))
  reports.set(key, [...(reports.get(key) ?? []), report])
}

const median = numbers => {
  const sorted = numbers.filter(n => typeof n === "number").sort((a, b) => a - b)
  if (sorted.length === 0) return undefined
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
const text = n => {
  if (n === undefined) return "none"
  if (Number.isInteger(n) || n >= 100) return Math.round(n).toLocaleString("en")
  return n.toPrecision(3)
}
const pick = (report, path) => path.split(".").reduce((value, name) => value?.[name], report)

console.log(`| scenario | figure | ${serverNames.join(" | ")} |`)
console.log(`| --- | --- |${" ---: |".repeat(serverNames.length)}`)
for (const scenario of scenarios.split(" ").filter(Boolean)) {
  for (const path of [...(shown[scenario] ?? []), "undelivered"]) {
    const cells = serverNames.map(server =>
      text(median((reports.get(`${scenario} ${server}`) ?? []).map(r => pick(r, path)))))
    console.log(`| ${scenario} | ${path.replace(/^figures\./, "")} | ${cells.join(" | ")} |`)
  }
}
