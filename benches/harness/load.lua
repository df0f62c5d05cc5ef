-- What wrk saw, as JSON on standard error: its own report is for people.
function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "p50": %f, "p90": %f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(90) / 1e6))
end
