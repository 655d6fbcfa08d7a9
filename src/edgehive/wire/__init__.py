"""The cloud-edge protocol: messages, resource grammar, sessions, pools, tokens. Pure."""
