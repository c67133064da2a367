package servers

// KafkaCommand is how to run one of Kafka's programs, by the name of its class,
// for who does not want the brokers of Kafka.
func KafkaCommand(t TB, class string, args ...string) (path string, all []string) {
	t.Helper()
	return Find(t, "java"), append(append(javaArgs(kafkaJars(t)), class), args...)
}
