"""Posts on a social network: tweets, retweets, comments, mentions, follows."""

from __future__ import annotations

from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError, by_number


class PostingApi(Api):
    name = "TwitterAPI"
    docs = "posting_api"

    def load(self, config: dict[str, Any]) -> None:
        self.username: str = config.get("username", "john")
        self.password: str = config.get("password", "john123")
        self.authenticated = bool(config.get("authenticated", False))
        self.tweets: dict[int, dict[str, Any]] = by_number(config.get("tweets", {}), "TwitterAPI: tweets")
        self.comments: dict[int, list[Any]] = by_number(config.get("comments", {}), "TwitterAPI: comments")
        self.retweets: dict[str, list[int]] = config.get("retweets", {})
        self.following_list: list[str] = config.get("following_list", ["alice", "bob"])
        self.tweet_counter = int(config.get("tweet_counter", len(self.tweets)))

    def authenticate_twitter(self, username: str, password: str) -> dict[str, Any]:
        # a wrong password is an answer, not an error
        self.authenticated = (username, password) == (self.username, self.password)
        return {"authentication_status": self.authenticated}

    def posting_get_login_status(self) -> dict[str, Any]:
        return {"login_status": self.authenticated}

    def post_tweet(
        self, content: str, tags: list[str] | None = None, mentions: list[str] | None = None
    ) -> dict[str, Any]:
        self._logged_in()
        tweet = {
            "id": self.tweet_counter,
            "username": self.username,
            "content": content,
            "tags": list(tags or []),
            "mentions": list(mentions or []),
        }
        self.tweets[self.tweet_counter] = tweet
        self.tweet_counter += 1
        return dict(tweet)

    def retweet(self, tweet_id: int) -> dict[str, Any]:
        self._logged_in()
        self._tweet(tweet_id)
        mine = self.retweets.setdefault(self.username, [])
        if tweet_id in mine:
            return {"retweet_status": "already retweeted"}
        mine.append(tweet_id)
        return {"retweet_status": "retweeted"}

    def comment(self, tweet_id: int, comment_content: str) -> dict[str, Any]:
        self._logged_in()
        self._tweet(tweet_id)
        self.comments.setdefault(tweet_id, []).append({"username": self.username, "content": comment_content})
        return {"comment_status": "comment added"}

    def mention(self, tweet_id: int, mentioned_usernames: list[str]) -> dict[str, Any]:
        self._logged_in()
        self._tweet(tweet_id).setdefault("mentions", []).extend(mentioned_usernames)
        return {"mention_status": "users mentioned"}

    def follow_user(self, username_to_follow: str) -> dict[str, Any]:
        self._logged_in()
        if username_to_follow in self.following_list:
            return {"follow_status": False}
        self.following_list.append(username_to_follow)
        return {"follow_status": True}

    def unfollow_user(self, username_to_unfollow: str) -> dict[str, Any]:
        self._logged_in()
        if username_to_unfollow not in self.following_list:
            return {"unfollow_status": False}
        self.following_list.remove(username_to_unfollow)
        return {"unfollow_status": True}

    def list_all_following(self) -> dict[str, Any]:
        self._logged_in()
        return {"following_list": list(self.following_list)}

    def get_tweet(self, tweet_id: int) -> dict[str, Any]:
        return dict(self._tweet(tweet_id))

    def get_user_tweets(self, username: str) -> dict[str, Any]:
        return {"user_tweets": [tweet for tweet in self.tweets.values() if tweet.get("username") == username]}

    def get_tweet_comments(self, tweet_id: int) -> dict[str, Any]:
        self._tweet(tweet_id)
        return {"comments": list(self.comments.get(tweet_id, []))}

    def search_tweets(self, keyword: str) -> dict[str, Any]:
        wanted = keyword.lower()
        found = [
            tweet
            for tweet in self.tweets.values()
            if wanted in str(tweet.get("content", "")).lower()
            or wanted in [str(tag).lower() for tag in tweet.get("tags", [])]
        ]
        return {"matching_tweets": found}

    def get_user_stats(self, username: str) -> dict[str, Any]:
        return {
            "tweet_count": sum(tweet.get("username") == username for tweet in self.tweets.values()),
            "following_count": len(self.following_list) if username == self.username else 0,
            "retweet_count": len(self.retweets.get(username, [])),
        }

    def _logged_in(self) -> None:
        if not self.authenticated:
            raise RefusedError("no user is authenticated")

    def _tweet(self, tweet_id: int) -> dict[str, Any]:
        if tweet_id not in self.tweets:
            raise RefusedError(f"there is no tweet {tweet_id}")
        return self.tweets[tweet_id]
