-- Send the lines of a file as bodies, one after the other, and count every answer that is not 200.
-- wrk ... --script pool.lua URL -- FILE
local requests, sent, threads = {}, 0, {}
wrong = 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local headers = {["Content-Type"] = "application/json"}
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function response(status)
  if status ~= 200 then
    wrong = wrong + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("wrong")
  end
  io.write(string.format("RESULT %f %d %d %f %f\n", summary.requests / summary.duration * 1e6, summary.requests,
    failed, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
