# For app/services/downlink.rb: publishes events and issues tickets with a downlink server. Needs no
# gem.

require "json"
require "net/http"

module Downlink
  URL = ENV.fetch("DOWNLINK_URL", "http://127.0.0.1:8080")
  KEY = File.read(ENV.fetch("DOWNLINK_KEY_FILE", "downlink-publish.key")).strip
  TIMEOUT_S = 5

  # Publishes one event. Returns when the event is on the disk of the server.
  def self.publish(topic, event, data)
    post("/events", [[:topic, topic], [:event, event]], JSON.generate(data))
  end

  # Returns the URL with which the page of this user subscribes to these topics.
  def self.ticket(topics, client)
    post("/tickets", topics.map { |topic| [:topic, topic] } + [[:client, client]])["url"]
  end

  # Ends the tickets and streams of a user. First end the session of the user.
  def self.revoke(client)
    post("/revoke", [[:client, client]])
  end

  def self.post(path, parameters, body = "")
    uri = URI("#{URL}#{path}?#{URI.encode_www_form(parameters)}")
    headers = { "Authorization" => "Bearer #{KEY}", "Content-Type" => "application/json" }
    times = { open_timeout: TIMEOUT_S, read_timeout: TIMEOUT_S, write_timeout: TIMEOUT_S }
    answer = Net::HTTP.start(uri.host, uri.port, use_ssl: uri.scheme == "https", **times) do |http|
      http.post(uri.request_uri, body, headers)
    end
    raise "downlink answers #{answer.code}: #{answer.body}" unless answer.is_a?(Net::HTTPSuccess)

    JSON.parse(answer.body)
  end
  private_class_method :post
end
