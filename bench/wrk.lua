-- SPDX-License-Identifier: GPL-2.0-only
-- wrk asks as many addresses as WRK_ADDRESSES names, a thread for each in turn, and says
-- in one line of JSON how it went: counts, seconds, the 99th percentile in seconds.

local addresses = {}
for address in string.gmatch(os.getenv("WRK_ADDRESSES") or "", "%S+") do
    table.insert(addresses, address)
end
local threads = 0

function setup(thread)
    if #addresses > 0 then
        thread.addr = wrk.lookup(addresses[threads % #addresses + 1], wrk.port or "80")[1]
    end
    threads = threads + 1
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests": %d, "seconds": %.6f, "p99": %.6f, "errors": %d}',
        summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
