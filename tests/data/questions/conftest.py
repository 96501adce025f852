from tests.data.questions.made import cache as cache
