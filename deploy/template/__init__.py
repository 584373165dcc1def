"""What makes the Flex Template around the image. Not in the image: workers need none of it."""
